"""Model, training and dataset cards: data for the Markdown templates in `templates/`."""
