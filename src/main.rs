//! Arguments to commands, commands to exit codes.

fn main() {}
