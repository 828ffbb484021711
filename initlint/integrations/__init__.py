"""initlint inside other tools: gates in front of a training run, and a pytest plug-in."""
