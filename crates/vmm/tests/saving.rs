//! A guest is stopped in the middle, saved, and goes on in a fresh machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use common::{guest, has_kvm};
use gamut_vmm::clock::SavedClock;
use gamut_vmm::config_text::{self, NameFiles};
use gamut_vmm::control::{Control, install_kick_handler};
use gamut_vmm::device::Devices;
use gamut_vmm::ending::Ending;
use gamut_vmm::kvm::{KvmMachine, Surroundings};
use gamut_vmm::layout::PAGE_BYTES;
use gamut_vmm::machine::Machine;
use gamut_vmm::pages::PageSet;
use gamut_vmm::prepare::{Image, prepare};
use gamut_vmm::snapshot::Transport;
use gamut_vmm::wait::Poller;

/// A console that can be watched.
#[derive(Clone)]
struct Console {
    text: Arc<Mutex<String>>,
    told: Sender<()>,
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text
            .lock()
            .unwrap()
            .push_str(&String::from_utf8_lossy(bytes));
        let _ = self.told.send(());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Watched {
    console: Console,
    told: Receiver<()>,
}

fn watched() -> Watched {
    let (told, receiver) = channel();
    Watched {
        console: Console {
            text: Arc::default(),
            told,
        },
        told: receiver,
    }
}

impl Watched {
    fn wait_for(&self, text: &str) {
        while !self.text().contains(text) {
            let wait = self.told.recv_timeout(std::time::Duration::from_secs(60));
            wait.unwrap_or_else(|_| panic!("{text:?} does not come: {}", self.text()));
        }
    }

    fn text(&self) -> String {
        self.console.text.lock().unwrap().clone()
    }
}

fn devices(
    machine: &KvmMachine,
    control: &Arc<Control>,
    console: &Console,
    saved: Option<SavedClock>,
) -> Devices {
    Devices {
        nics: Vec::new(),
        disks: Vec::new(),
        console: Box::new(console.clone()),
        waiter: Box::new(Poller::new(Arc::clone(control), [])),
        clock: Box::new(machine.clock(saved).expect("a clock")),
        next_nic: 0,
    }
}

fn start(control: &Arc<Control>) -> KvmMachine {
    install_kick_handler().expect("a handler");
    let file = std::fs::read(guest()).expect("the guest");
    let image = Image::parse(&file).expect("an image");
    let mut setup = common::setup("count");
    setup.config.memory_bytes = None;
    let text = config_text::build(&setup.config, &[], &[], &NameFiles::default()).expect("a text");
    let prepared = prepare("guest", &file, &image, &text, None, None).expect("memory");
    KvmMachine::start(prepared, Arc::clone(control)).expect("a machine")
}

/// Runs a machine in a thread until it pauses or ends.
fn run(
    mut machine: KvmMachine,
    mut devices: Devices,
) -> std::thread::JoinHandle<(KvmMachine, Devices, Ending)> {
    std::thread::spawn(move || {
        let ending = machine.run(&mut devices);
        (machine, devices, ending)
    })
}

#[test]
fn a_saved_guest_goes_on_in_a_fresh_machine() {
    if !has_kvm() {
        return;
    }
    let watched = watched();
    let control = Arc::new(Control::new().expect("a control"));
    let machine = start(&control);
    let devices_of_first = devices(&machine, &control, &watched.console, None);
    let thread = run(machine, devices_of_first);
    watched.wait_for("\n9 ");
    control.pause();
    let (mut machine, devices_of_first, ending) = thread.join().expect("a thread");
    assert_eq!(ending, Ending::Paused);
    let saved = devices_of_first.clock.save();
    let mut stream = Vec::new();
    machine.send(saved, &mut stream).expect("saved");
    drop((machine, devices_of_first));

    let control = Arc::new(Control::new().expect("a control"));
    let surroundings = Surroundings {
        control: Arc::clone(&control),
        rofs: None,
    };
    let (machine, clock) = KvmMachine::receive(&mut stream.as_slice(), surroundings).expect("read");
    assert_eq!(clock, saved);
    let devices = devices(&machine, &control, &watched.console, Some(clock));
    assert!(devices.clock.now_ns() >= saved.monotonic_ns);
    let (_, _, ending) = run(machine, devices).join().expect("a thread");
    assert_eq!(ending, Ending::Exited(0));

    // Nothing twice, nothing left out, and the floating-point registers were saved, too.
    let text = watched.text();
    let mut sum = 1.0_f64;
    let mut generations = Vec::new();
    for (number, line) in text.lines().enumerate() {
        sum += 1.0 / f64::from(u32::try_from(number).unwrap() + 1);
        let words: Vec<&str> = line.split(' ').collect();
        let expected = format!("{:.0}", (sum * 1e6).floor());
        assert_eq!(
            words[..2],
            [number.to_string().as_str(), &expected],
            "{text}"
        );
        generations.push(words[3].to_owned());
    }
    assert_eq!(generations.len(), 40, "{text}");
    assert!(generations.is_sorted());
    assert_eq!(generations.first().map(String::as_str), Some("0"));
    assert_eq!(generations.last().map(String::as_str), Some("1"));
}

#[test]
fn pausing_and_going_on_changes_nothing() {
    if !has_kvm() {
        return;
    }
    let watched = watched();
    let control = Arc::new(Control::new().expect("a control"));
    let mut machine = start(&control);
    let mut devices = devices(&machine, &control, &watched.console, None);
    for number in 0..5 {
        let thread = run(machine, devices);
        watched.wait_for(&format!("{} ", number * 3));
        control.pause();
        let ending;
        (machine, devices, ending) = thread.join().expect("a thread");
        assert_eq!(ending, Ending::Paused);
        control.resume();
    }
    let (_, _, ending) = run(machine, devices).join().expect("a thread");
    assert_eq!(ending, Ending::Exited(0));
    assert_eq!(watched.text().lines().count(), 40, "{}", watched.text());
}

/// Copies the pages of a machine, all or those of a set.
fn copy(machine: &KvmMachine, into: &mut [u8], pages: Option<&PageSet>) {
    let memory = machine.memory();
    let all: Vec<u64> = (0..memory.bytes() / PAGE_BYTES)
        .map(|page| page * PAGE_BYTES)
        .collect();
    let addresses = pages.map_or(all, |pages| pages.addresses().collect());
    for address in addresses {
        let start = usize::try_from(address).unwrap();
        into[start..start + 4096].copy_from_slice(memory.raw(address, PAGE_BYTES).unwrap());
    }
}

#[test]
fn pages_that_were_written_are_known() {
    if !has_kvm() {
        return;
    }
    let watched = watched();
    let control = Arc::new(Control::new().expect("a control"));
    let mut machine = start(&control);
    let mut devices = devices(&machine, &control, &watched.console, None);
    let mut mirror = vec![0; usize::try_from(machine.memory().bytes()).unwrap()];
    machine.track_writes(true).expect("tracked");
    copy(&machine, &mut mirror, None);
    for number in 0..4 {
        let thread = run(machine, devices);
        watched.wait_for(&format!("{} ", number * 5));
        control.pause();
        (machine, devices, _) = thread.join().expect("a thread");
        control.resume();
        let pages = machine.take_writes().expect("a set");
        let count = pages.addresses().count();
        assert!((1..100).contains(&count), "{count} pages");
        copy(&machine, &mut mirror, Some(&pages));
        let bytes = machine.memory().bytes();
        assert!(
            machine.memory().raw(0, bytes) == Some(&mirror[..]),
            "a page was missed"
        );
    }
    machine.track_writes(false).expect("not tracked");
    assert!(machine.take_writes().is_err());
}
