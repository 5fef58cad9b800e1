"""Looking inside a trained model: lenses, provenance, attention maps, interventions."""
