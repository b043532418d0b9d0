"""Start the kernel: ``python -m paibook_kernel -f <connection file>``, which is what Jupyter runs."""

from paibook_kernel.app import PaibookKernelApp

if __name__ == "__main__":
    PaibookKernelApp.launch_instance()
