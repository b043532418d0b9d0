"""JupyterLab's "Create notebook job" dialog over paibook's jobs, by jupyter-scheduler's extension points."""
