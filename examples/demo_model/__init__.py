"""The built-in model, made with the recipe: `python -m examples.demo_model --help`."""
