"""What one GPU does, in under five minutes without network, as Markdown tables:

    python -m bench gpu [training] [decoding] [alibi] [resume] [memory]

Without a section's name it runs all. Each contestant is measured in a process of its own; each table is printed as soon
as it is there. A contestant that fails has its error in the table, and the exit status is 1 in the end. Without a CUDA
device it ends with status 2.
"""
