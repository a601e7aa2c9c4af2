//! The program of the built-in image `hello-http`: a small HTTP/1.1 server.
//!
//! `hello-http [--root DIRECTORY] [PORT]`; the port is the argument, else `$PORT`, else 80. It
//! answers every GET and HEAD with a greeting and the path, or with a file beneath DIRECTORY. One
//! thread, epoll, connections kept alive. SIGTERM and SIGINT end it with status 0, also as PID 1.

#![no_std]
#![no_main]

mod sys;

use sys::number as nr;

const MAX_CONNECTIONS: usize = 256;
const REQUEST_BYTES: usize = 4096;
const HEADER_BYTES: usize = 512;
const EAGAIN: isize = -11;
const EINTR: isize = -4;
const EMFILE: isize = -24;
const EPOLLIN: u32 = 1;
const EPOLLOUT: u32 = 4;
/// Marks of the descriptors that are no connection.
const LISTENER: u64 = u64::MAX;
const SIGNALS: u64 = u64::MAX - 1;

/// One connection: requests come in, one answer at a time goes out.
#[derive(Clone, Copy)]
struct Connection {
    /// Descriptor plus one; 0 is a free place.
    fd_plus_one: usize,
    request: [u8; REQUEST_BYTES],
    request_bytes: usize,
    /// Header of the answer, and its body if that is no file.
    answer: [u8; HEADER_BYTES + REQUEST_BYTES],
    answer_bytes: usize,
    answer_sent: usize,
    /// Descriptor plus one of the file being sent.
    file_plus_one: usize,
    file_left: usize,
    /// Whether the connection ends with this answer.
    is_last: bool,
    waits_for_room: bool,
}

const FREE: Connection = Connection {
    fd_plus_one: 0,
    request: [0; REQUEST_BYTES],
    request_bytes: 0,
    answer: [0; HEADER_BYTES + REQUEST_BYTES],
    answer_bytes: 0,
    answer_sent: 0,
    file_plus_one: 0,
    file_left: 0,
    is_last: false,
    waits_for_room: false,
};

static mut CONNECTIONS: [Connection; MAX_CONNECTIONS] = [FREE; MAX_CONNECTIONS];

#[repr(C)]
#[cfg_attr(target_arch = "x86_64", repr(packed))]
#[derive(Clone, Copy)]
struct EpollEvent {
    events: u32,
    data: u64,
}

fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    // SAFETY: every caller here passes pointers to memory of its own that is as long as it says.
    unsafe { sys::call(number, a, b, c, d, 0) }
}

fn fail(what: &str) -> ! {
    sys::write_all(2, b"hello-http: ");
    sys::write_all(2, what.as_bytes());
    sys::write_all(2, b"\n");
    sys::exit(1)
}

fn c_text(text: *const u8) -> &'static [u8] {
    // SAFETY: the kernel's argument and environment strings end with NUL and stay.
    unsafe { core::slice::from_raw_parts(text, sys::strlen(text)) }
}

fn port_of(text: &[u8]) -> Option<u16> {
    let value = core::str::from_utf8(text).ok()?.parse().ok()?;
    (value != 0).then_some(value)
}

extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: at the start the stack has argc, argc pointers, 0, the environment's pointers, 0.
    let argc = unsafe { *stack };
    // SAFETY: see above.
    let strings = unsafe { stack.add(1) }.cast::<*const u8>();
    let mut root = None;
    let mut port = None;
    let mut at = argc + 1;
    loop {
        // SAFETY: the environment ends with 0.
        let variable = unsafe { *strings.add(at) };
        if variable.is_null() {
            break;
        }
        if let Some(value) = c_text(variable).strip_prefix(b"PORT=") {
            port = port_of(value);
            if port.is_none() {
                fail("PORT in the environment is not a port (1 to 65535)");
            }
        }
        at += 1;
    }
    at = 1;
    while at < argc {
        // SAFETY: there are argc arguments.
        let argument = unsafe { *strings.add(at) };
        if c_text(argument) == b"--root" {
            at += 1;
            if at >= argc {
                fail("--root needs a directory");
            }
            // SAFETY: there are argc arguments.
            root = Some(open_root(unsafe { *strings.add(at) }));
        } else {
            port = port_of(c_text(argument));
            if port.is_none() {
                fail("usage: hello-http [--root DIRECTORY] [PORT]");
            }
        }
        at += 1;
    }
    serve(port.unwrap_or(80), root)
}

fn open_root(path: *const u8) -> usize {
    let at_fdcwd = -100isize as usize;
    let fd = call(nr::OPENAT, at_fdcwd, path as usize, nr::O_DIRECTORY, 0);
    usize::try_from(fd).unwrap_or_else(|_| fail("the directory of --root cannot be opened"))
}

fn watch(epoll: usize, operation: usize, fd: usize, events: u32, data: u64) {
    let event = EpollEvent { events, data };
    call(
        nr::EPOLL_CTL,
        epoll,
        operation,
        fd,
        &raw const event as usize,
    );
}

fn listen(port: u16) -> usize {
    let one = 1u32;
    // IPv6 that takes IPv4 too, else IPv4 alone. TCP, non-blocking, close-on-exec.
    for family in [10u16, 2] {
        let Ok(fd) = usize::try_from(call(nr::SOCKET, usize::from(family), 0o2004001, 0, 0)) else {
            continue;
        };
        let mut address = [0u8; 28];
        address[..2].copy_from_slice(&family.to_ne_bytes());
        address[2..4].copy_from_slice(&port.to_be_bytes());
        let length = if family == 10 { 28 } else { 16 };
        // SAFETY: the option's value is four bytes.
        unsafe { sys::call(nr::SETSOCKOPT, fd, 1, 2, &raw const one as usize, 4) };
        if call(nr::BIND, fd, address.as_ptr() as usize, length, 0) == 0
            && call(nr::LISTEN, fd, 1024, 0, 0) == 0
        {
            return fd;
        }
        call(nr::CLOSE, fd, 0, 0, 0);
    }
    fail("cannot listen: the port is taken, or below 1024 and not permitted")
}

fn serve(port: u16, root: Option<usize>) -> ! {
    // SIGTERM and SIGINT come as data: a PID 1 has no default action for them. SIGPIPE is blocked.
    let stop: u64 = (1 << 14) | (1 << 1);
    let blocked: u64 = stop | (1 << 12);
    call(nr::RT_SIGPROCMASK, 0, &raw const blocked as usize, 0, 8);
    let signals = call(nr::SIGNALFD4, usize::MAX, &raw const stop as usize, 8, 0);
    let epoll = call(nr::EPOLL_CREATE1, 0, 0, 0, 0);
    let (Ok(signals), Ok(epoll)) = (usize::try_from(signals), usize::try_from(epoll)) else {
        fail("cannot make an epoll or signal descriptor");
    };
    let listener = listen(port);
    watch(epoll, 1, listener, EPOLLIN, LISTENER);
    watch(epoll, 1, signals, EPOLLIN, SIGNALS);
    sys::write_all(1, b"hello-http: ready\n");

    // SAFETY: the only reference ever made, in the only thread.
    let connections = unsafe { &mut *(&raw mut CONNECTIONS) };
    let mut events = [EpollEvent { events: 0, data: 0 }; 64];
    loop {
        let count = call(
            nr::EPOLL_PWAIT,
            epoll,
            events.as_mut_ptr() as usize,
            events.len(),
            usize::MAX,
        );
        if count < 0 && count != EINTR {
            fail("waiting for connections failed");
        }
        for event in events.iter().take(usize::try_from(count).unwrap_or(0)) {
            match event.data {
                SIGNALS => sys::exit(0),
                LISTENER => accept(epoll, listener, connections),
                index => {
                    let index = index as usize;
                    if let Some(connection) = connections.get_mut(index)
                        && connection.fd_plus_one > 0
                    {
                        advance(epoll, index as u64, connection, root);
                        // A place is free again: take who waits.
                        if connection.fd_plus_one == 0 {
                            watch(epoll, 3, listener, EPOLLIN, LISTENER);
                        }
                    }
                }
            }
        }
    }
}

fn accept(epoll: usize, listener: usize, connections: &mut [Connection; MAX_CONNECTIONS]) {
    loop {
        let Some(index) = connections.iter().position(|place| place.fd_plus_one == 0) else {
            // Full: the kernel's queue holds the others until a place is free.
            watch(epoll, 3, listener, 0, LISTENER);
            return;
        };
        let accepted = call(nr::ACCEPT4, listener, 0, 0, 0o2004000);
        let Ok(fd) = usize::try_from(accepted) else {
            if accepted == EMFILE {
                watch(epoll, 3, listener, 0, LISTENER);
            }
            return;
        };
        if let Some(connection) = connections.get_mut(index) {
            connection.fd_plus_one = fd + 1;
            connection.request_bytes = 0;
            connection.answer_bytes = 0;
            connection.answer_sent = 0;
            connection.is_last = false;
            connection.waits_for_room = false;
            watch(epoll, 1, fd, EPOLLIN, index as u64);
        }
    }
}

/// Goes on with a connection until it would wait.
fn advance(epoll: usize, index: u64, connection: &mut Connection, root: Option<usize>) {
    let fd = connection.fd_plus_one - 1;
    loop {
        match send(fd, connection) {
            Sent::All => {}
            Sent::Part => {
                if !connection.waits_for_room {
                    connection.waits_for_room = true;
                    watch(epoll, 3, fd, EPOLLOUT, index);
                }
                return;
            }
            Sent::Failed => return close(connection),
        }
        if connection.is_last {
            return close(connection);
        }
        if connection.waits_for_room {
            connection.waits_for_room = false;
            watch(epoll, 3, fd, EPOLLIN, index);
        }
        if answer_next(connection, root) {
            continue;
        }
        let free = &mut connection.request[connection.request_bytes..];
        let received = call(nr::READ, fd, free.as_mut_ptr() as usize, free.len(), 0);
        match usize::try_from(received) {
            Ok(0) => return close(connection),
            Ok(received) => connection.request_bytes += received,
            Err(_) if received == EINTR => {}
            Err(_) if received == EAGAIN => return,
            Err(_) => return close(connection),
        }
    }
}

fn close(connection: &mut Connection) {
    if connection.file_plus_one > 0 {
        call(nr::CLOSE, connection.file_plus_one - 1, 0, 0, 0);
        connection.file_plus_one = 0;
    }
    call(nr::CLOSE, connection.fd_plus_one - 1, 0, 0, 0);
    connection.fd_plus_one = 0;
}

enum Sent {
    All,
    Part,
    Failed,
}

fn send(fd: usize, connection: &mut Connection) -> Sent {
    while connection.answer_sent < connection.answer_bytes {
        let rest = &connection.answer[connection.answer_sent..connection.answer_bytes];
        let sent = call(nr::WRITE, fd, rest.as_ptr() as usize, rest.len(), 0);
        match usize::try_from(sent) {
            Ok(sent) => connection.answer_sent += sent,
            Err(_) if sent == EINTR => {}
            Err(_) if sent == EAGAIN => return Sent::Part,
            Err(_) => return Sent::Failed,
        }
    }
    while connection.file_plus_one > 0 {
        if connection.file_left == 0 {
            call(nr::CLOSE, connection.file_plus_one - 1, 0, 0, 0);
            connection.file_plus_one = 0;
            break;
        }
        let sent = call(
            nr::SENDFILE,
            fd,
            connection.file_plus_one - 1,
            0,
            connection.file_left,
        );
        match usize::try_from(sent) {
            // The file became shorter than was promised.
            Ok(0) => return Sent::Failed,
            Ok(sent) => connection.file_left -= sent.min(connection.file_left),
            Err(_) if sent == EINTR => {}
            Err(_) if sent == EAGAIN => return Sent::Part,
            Err(_) => return Sent::Failed,
        }
    }
    Sent::All
}

/// Prepares the answer to the next request that is complete; `false` if there is none.
fn answer_next(connection: &mut Connection, root: Option<usize>) -> bool {
    let received = &connection.request[..connection.request_bytes];
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
        if connection.request_bytes < REQUEST_BYTES {
            return false;
        }
        connection.is_last = true;
        let body = b"The request's header is longer than 4096 bytes.\n";
        respond(
            connection,
            b"431 Request Header Fields Too Large",
            body,
            true,
        );
        return true;
    };
    let mut header = [0u8; REQUEST_BYTES];
    header[..end].copy_from_slice(&received[..end]);
    connection
        .request
        .copy_within(end + 4..connection.request_bytes, 0);
    connection.request_bytes -= end + 4;

    let header = &header[..end];
    let line_end = header
        .windows(2)
        .position(|two| two == b"\r\n")
        .unwrap_or(end);
    let (line, fields) = header.split_at(line_end);
    let mut words = line.split(|&byte| byte == b' ');
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let version = words.next().unwrap_or_default();
    // No body is read: a connection with one cannot go on.
    connection.is_last = version != b"HTTP/1.1"
        || has_field(fields, b"connection", b"close")
        || has_field(fields, b"transfer-encoding", b"")
        || (has_field(fields, b"content-length", b"")
            && !has_field(fields, b"content-length", b"0"));
    let has_body = method != b"HEAD";
    if !version.starts_with(b"HTTP/1.") || target.first() != Some(&b'/') {
        connection.is_last = true;
        respond(
            connection,
            b"400 Bad Request",
            b"This is not an HTTP/1 request.\n",
            has_body,
        );
        return true;
    }
    if method != b"GET" && method != b"HEAD" {
        connection.is_last = true;
        respond(
            connection,
            b"405 Method Not Allowed",
            b"Only GET and HEAD.\n",
            has_body,
        );
        return true;
    }
    if let Some(root) = root {
        respond_with_file(connection, root, target, has_body);
        return true;
    }
    let mut body = [0u8; REQUEST_BYTES + 32];
    let mut body_bytes = 0;
    for part in [b"Hello from Gamut! Path: ".as_slice(), target, b"\n"] {
        body[body_bytes..body_bytes + part.len()].copy_from_slice(part);
        body_bytes += part.len();
    }
    respond(connection, b"200 OK", &body[..body_bytes], has_body);
    true
}

/// Whether a header field is there whose value begins with `value`, without regard to case.
fn has_field(fields: &[u8], name: &[u8], value: &[u8]) -> bool {
    fields.split(|&byte| byte == b'\n').any(|line| {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return false;
        };
        let (found, rest) = line.split_at(colon);
        let rest = rest[1..].trim_ascii();
        found.trim_ascii().eq_ignore_ascii_case(name)
            && (rest.len() == value.len() || value.is_empty() || value.len() > 1)
            && rest
                .get(..value.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(value))
    })
}

fn respond(connection: &mut Connection, status: &[u8], body: &[u8], has_body: bool) {
    begin(connection, status, body.len(), b"text/plain; charset=utf-8");
    if has_body {
        append(connection, body);
    }
}

/// Writes the header of an answer.
fn begin(connection: &mut Connection, status: &[u8], body_bytes: usize, content_type: &[u8]) {
    connection.answer_bytes = 0;
    connection.answer_sent = 0;
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    let mut value = body_bytes;
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    let is_last = connection.is_last;
    let connection_field: &[u8] = if is_last { b"close" } else { b"keep-alive" };
    for part in [
        b"HTTP/1.1 ".as_slice(),
        status,
        b"\r\nServer: hello-http\r\nContent-Type: ",
        content_type,
        b"\r\nContent-Length: ",
        &digits[start..],
        b"\r\nConnection: ",
        connection_field,
        b"\r\n\r\n",
    ] {
        append(connection, part);
    }
}

fn append(connection: &mut Connection, bytes: &[u8]) {
    let start = connection.answer_bytes;
    let Some(free) = connection.answer.get_mut(start..start + bytes.len()) else {
        return;
    };
    free.copy_from_slice(bytes);
    connection.answer_bytes += bytes.len();
}

/// Opens a file beneath the directory that `--root` gave; links out of it are refused.
fn open_beneath(root: usize, path: &[u8]) -> Option<usize> {
    // struct open_how: flags, mode, resolve.
    const O_NONBLOCK_CLOEXEC: u64 = 0o2004000;
    const RESOLVE_BENEATH_NO_MAGICLINKS: u64 = 0x08 | 0x02;
    let how = [O_NONBLOCK_CLOEXEC, 0, RESOLVE_BENEATH_NO_MAGICLINKS];
    let fd = call(
        nr::OPENAT2,
        root,
        path.as_ptr() as usize,
        how.as_ptr() as usize,
        24,
    );
    usize::try_from(fd).ok()
}

/// Mode and size of an open file.
fn stat(fd: usize) -> Option<(u32, usize)> {
    let mut stat = [0u8; 256];
    if call(nr::FSTAT, fd, stat.as_mut_ptr() as usize, 0, 0) != 0 {
        return None;
    }
    let mode = stat[nr::STAT_MODE..nr::STAT_MODE + 4].try_into().ok()?;
    let size = stat[nr::STAT_SIZE..nr::STAT_SIZE + 8].try_into().ok()?;
    Some((u32::from_ne_bytes(mode), usize::from_ne_bytes(size)))
}

fn respond_with_file(connection: &mut Connection, root: usize, target: &[u8], has_body: bool) {
    let mut path = [0u8; REQUEST_BYTES + 16];
    let mut length = decode_path(target, &mut path);
    if length == 0 || path[length - 1] == b'/' {
        path[length..length + 10].copy_from_slice(b"index.html");
        length += 10;
    }
    let mut file = open_beneath(root, &path[..length + 1]);
    if let Some(fd) = file
        && stat(fd).is_some_and(|(mode, _)| mode & 0o170000 == 0o040000)
    {
        call(nr::CLOSE, fd, 0, 0, 0);
        path[length..length + 11].copy_from_slice(b"/index.html");
        length += 11;
        file = open_beneath(root, &path[..length + 1]);
    }
    let found = file.and_then(|fd| match stat(fd) {
        Some((mode, size)) if mode & 0o170000 == 0o100000 => Some((fd, size)),
        _ => {
            call(nr::CLOSE, fd, 0, 0, 0);
            None
        }
    });
    let Some((fd, size)) = found else {
        respond(
            connection,
            b"404 Not Found",
            b"There is no such file.\n",
            has_body,
        );
        return;
    };
    begin(connection, b"200 OK", size, content_type(&path[..length]));
    if has_body {
        connection.file_plus_one = fd + 1;
        connection.file_left = size;
    } else {
        call(nr::CLOSE, fd, 0, 0, 0);
    }
}

/// Decodes a request's path without its query, relative; gives its length. A NUL ends it.
fn decode_path(target: &[u8], path: &mut [u8]) -> usize {
    let end = target
        .iter()
        .position(|&byte| byte == b'?' || byte == b'#')
        .unwrap_or(target.len());
    let mut rest = &target[..end];
    while let [b'/', behind @ ..] = rest {
        rest = behind;
    }
    let hex = |byte: u8| (byte as char).to_digit(16);
    let mut length = 0;
    while let [byte, behind @ ..] = rest {
        let mut byte = *byte;
        rest = behind;
        if byte == b'%'
            && let [high, low, behind @ ..] = rest
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            byte = (high * 16 + low) as u8;
            rest = behind;
        }
        path[length] = byte;
        length += 1;
    }
    length
}

fn content_type(path: &[u8]) -> &'static [u8] {
    let types: [(&[u8], &[u8]); 8] = [
        (b".html", b"text/html; charset=utf-8"),
        (b".css", b"text/css"),
        (b".js", b"text/javascript"),
        (b".json", b"application/json"),
        (b".txt", b"text/plain; charset=utf-8"),
        (b".svg", b"image/svg+xml"),
        (b".png", b"image/png"),
        (b".jpg", b"image/jpeg"),
    ];
    let found = types.iter().find(|(suffix, _)| path.ends_with(suffix));
    found.map_or(b"application/octet-stream", |(_, kind)| kind)
}
