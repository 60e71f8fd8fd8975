"""What a mechanism may take instead of writing it: each module adds one missing capability."""
