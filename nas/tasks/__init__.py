"""What candidates are trained on: corpora and, later, probe tasks. One file each."""
