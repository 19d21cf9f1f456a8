"""What happens while training: a file each."""
