"""The paibook kernel: ipykernel with the magics loaded and ``pai`` defined from the first cell on."""
