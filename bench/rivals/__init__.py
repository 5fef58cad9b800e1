"""What Glassbox is measured against: other libraries' models, and one rebuilt from its description."""
