"""Recipes: whole methods as compositions of the library's parts. Configs call them; a new method is a new file."""
