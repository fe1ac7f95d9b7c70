"""The built-in model, made with the recipe: `python -m training.demo --help`."""
