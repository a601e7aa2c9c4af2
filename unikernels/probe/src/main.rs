//! Does what its arguments say: the guest of the tests.
//!
//! ```text
//! print WORD...            each on a line
//! args | env | hostname    what it was started with
//! exit CODE                ends with a code
//! error TEXT               its main function fails
//! sleep SECONDS            and ends
//! tick [MILLISECONDS]      prints a number, again and again, until it is stopped
//! stop wait|ignore         ends with 0 when asked to stop | never
//! crash null|jump|panic|oom|loop|stack|wx|privileged|overflow
//! memory                   heap in KiB, and allocates most of it
//! clock                    wall clock in seconds, and whether time goes on
//! random                   16 random bytes
//! addresses                of the network devices
//! resolve NAME             its addresses
//! get URL                  status and body
//! serve [PORT]             answers with host name and path
//! udp PORT                 sends back what it gets
//! connect ADDRESS:PORT     says what the peer says
//! block info|read|write TEXT|fill|beyond
//! rofs list|read PATH
//! do A then B then ...     several of these, one after the other
//! ```
#![no_std]
#![no_main]

mod crash;
mod devices;
mod network;

use core::time::Duration;

use gamut_libos::executor::sleep;
use gamut_libos::prelude::*;
use gamut_libos::start::ExitCode;
use gamut_libos::{clock, entropy, env, memory, shutdown};

app!(main);

async fn main() -> Result<ExitCode, Error> {
    let arguments: Vec<&str> = env::args().skip(1).collect();
    let commands = match arguments.split_first() {
        Some((&"do", rest)) => rest.split(|&word| word == "then").collect(),
        _ => vec![arguments.as_slice()],
    };
    for command in commands {
        if let Some(code) = run(command).await? {
            return Ok(code);
        }
    }
    Ok(ExitCode(0))
}

/// Carries out a command. An exit code ends the guest.
async fn run(command: &[&str]) -> Result<Option<ExitCode>, Error> {
    let (&name, rest) = command.split_first().unwrap_or((&"args", &[]));
    let first = rest.first().copied().unwrap_or_default();
    match name {
        "print" => rest.iter().for_each(|word| println!("{word}")),
        "args" => env::args().for_each(|argument| println!("{argument}")),
        "env" => env::vars().for_each(|(name, value)| println!("{name}={value}")),
        "hostname" => println!("{}", env::hostname()),
        "exit" => return Ok(Some(ExitCode(number(first)?))),
        "error" => return Err(Error::from(first.to_owned())),
        "sleep" => sleep(Duration::from_secs(number::<u32>(first)?.into())).await,
        "tick" => tick(first).await?,
        "stop" if first == "ignore" => loop {
            sleep(Duration::from_secs(3600)).await;
        },
        "stop" => {
            println!("waiting");
            shutdown::requested().await;
            println!("stopping");
        }
        "crash" => crash::crash(first)?,
        "memory" => allocate(),
        "clock" => clock_works().await?,
        "random" => {
            let mut bytes = [0; 16];
            entropy::fill(&mut bytes);
            println!("{bytes:02x?}");
        }
        "addresses" => network::addresses().await,
        "resolve" => network::resolve(first).await?,
        "get" => network::get(first).await?,
        "serve" => network::serve(first).await?,
        "udp" => network::echo(number(first)?).await?,
        "connect" => network::connect(first).await?,
        "block" => devices::block(rest).await?,
        "rofs" => devices::rofs(rest)?,
        other => return Err(Error::from(format!("unknown command {other:?}"))),
    }
    Ok(None)
}

fn number<T: core::str::FromStr>(text: &str) -> Result<T, Error> {
    text.parse()
        .map_err(|_| Error::from(format!("{text:?} is not a number that fits")))
}

async fn tick(interval: &str) -> Result<(), Error> {
    let interval_ms = if interval.is_empty() {
        1000
    } else {
        number::<u32>(interval)?
    };
    let mut count = 0_u64;
    while !shutdown::is_requested() {
        println!("tick {count}");
        count += 1;
        sleep(Duration::from_millis(interval_ms.into())).await;
    }
    Ok(())
}

fn allocate() {
    let available = memory::available_bytes();
    println!("heap: {} KiB available", available / 1024);
    // The allocator needs some of it for itself.
    let block = vec![0x5a_u8; available / 8 * 7];
    let sum: u64 = block
        .iter()
        .step_by(4096)
        .map(|&byte| u64::from(byte))
        .sum();
    println!("allocated {} KiB, sum {sum}", block.len() / 1024);
}

async fn clock_works() -> Result<(), Error> {
    println!("{}", clock::wall_ns() / 1_000_000_000);
    let before_ns = clock::monotonic_ns();
    sleep(Duration::from_millis(20)).await;
    let slept_ns = clock::monotonic_ns() - before_ns;
    if slept_ns < 20_000_000 {
        return Err(Error::from(format!("slept {slept_ns} ns instead of 20 ms")));
    }
    println!("time goes on");
    Ok(())
}
