"""The local stack: what `make up` starts, one line of the `Procfile` a process.

`__main__` checks the ports and runs the Procfile under honcho; `herald` waits until all of it is healthy, applies
`prefect.yaml` and prints the addresses.
"""
