//! Which processors a process may run on (sched_setaffinity(2)).

/// Words of a mask for more processors than any kernel has.
const WORDS: usize = 8192 / 64;

/// Lets this process run on every processor of its control group, wherever its caller was bound.
/// Where that is forbidden, it stays as it was.
pub(crate) fn reset() {
    let mask = [u64::MAX; WORDS];
    // SAFETY: the mask is readable for its size; the kernel cuts it down to what there is and to
    // what the group may use.
    unsafe {
        libc::syscall(
            libc::SYS_sched_setaffinity,
            0,
            size_of_val(&mask),
            mask.as_ptr(),
        )
    };
}
