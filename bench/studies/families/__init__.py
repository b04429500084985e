"""Is DQAR right on every transformer and pipeline of the installed diffusers, or refused in one line?"""
