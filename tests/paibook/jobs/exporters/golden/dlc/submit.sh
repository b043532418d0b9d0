#!/bin/sh
# Submits the paibook job 'Nightly training' to PAI-DLC; first build and push the image.
# Options of your own may follow, such as --workspace-id, --resource-id or --gpu-type.
exec pai dlc job submit --name nightly-training --job-type PyTorchJob --image registry.example/me/nightly:1 --command 'paibook job run /job/notebook.ipynb --spec /job/job.json' --worker-count 1 --cpu 2 --memory 3Gi "$@"
