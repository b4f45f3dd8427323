"""What candidates are trained on: corpora and probe tasks. One file each."""
