"""Other systems' predictions: the forms they come in, a file each, and which example each is of.

All of it is input from strangers: no code in a file is run, sizes are looked at before anything is
drawn, and what does not fit is an error that names file and line.
"""
