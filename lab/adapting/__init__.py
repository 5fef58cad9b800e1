"""What a trained run becomes: fine-tuned, adapted by LoRA, quantised, a classifier, a teacher."""
