"""The recipe of the bundled tiny backbones (`python -m keyseg.tiny`), and the files it makes."""
