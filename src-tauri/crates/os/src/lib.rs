//! Directories, processes and the docker context.
