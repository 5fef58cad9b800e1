"""What one does with a trained model, other than to train it further as it is."""
