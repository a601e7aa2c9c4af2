//! Says hello, as the image `hello-world` does; with arguments, shows what it was started with.
#![no_std]
#![no_main]

use gamut_libos::prelude::*;
use gamut_libos::{clock, env};

app!(main, default_memory_bytes = 8 << 20);

async fn main() -> Result<(), Error> {
    println!("Hello from a unikernel!");
    println!();
    println!("This program is the only one in its machine: no kernel, no processes, no shell.");
    println!(
        "It was running {} µs after its machine.",
        clock::monotonic_ns() / 1000
    );
    for (index, argument) in env::args().enumerate().skip(1) {
        println!("argument {index}: {argument}");
    }
    if env::args().nth(1).is_some() {
        for (name, value) in env::vars() {
            println!("environment: {name}={value}");
        }
    }
    Ok(())
}
