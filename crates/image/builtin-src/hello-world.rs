//! The program of the built-in image `hello-world`.

#![no_std]
#![no_main]

mod sys;

const TEXT: &str = "\
Hello from Gamut!

You are reading this, so everything works. Here is what just happened:

  1. The client asked the Gamut daemon, over its socket, to run the image `hello-world`.
  2. The daemon had that image inside itself (others it pulls from a registry or loads from a
     file), and unpacked its one layer into the content store.
  3. It started a supervisor, which made a container of the image: its own processes, network,
     mounts, users' view and limits, and in it this one program, statically linked, a few KiB.
  4. The program wrote these lines; the supervisor logged them, and the client shows them to you.

Something that stays, and that answers you:

  gamut run -d --name web -p 8080:80 hello-http
  curl http://localhost:8080/anything
";

extern "C" fn main(_stack: *const usize) -> ! {
    sys::write_all(1, TEXT.as_bytes());
    sys::exit(0)
}
