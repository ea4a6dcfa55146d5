"""The commands of the command line, one module each; `allpet_physics.cli` loads them when they are called."""
