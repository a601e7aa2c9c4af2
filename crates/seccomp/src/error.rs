//! What can be wrong with a profile.

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the JSON of a profile.
    #[error("cannot read the seccomp profile: it is not valid JSON of a profile")]
    Json(#[from] serde_json::Error),
    /// The machine's architecture is not supported.
    #[error(
        "cannot compile a seccomp profile on this architecture; run the container with seccomp=unconfined"
    )]
    Architecture,
    /// No default action.
    #[error(
        "the seccomp profile has rules but no defaultAction; add one, for example SCMP_ACT_ERRNO"
    )]
    NoDefaultAction,
    /// Two fields that exclude each other.
    #[error("the seccomp profile has both '{0}' and '{1}'; keep one of them")]
    Both(&'static str, &'static str),
    /// A rule that names no system call.
    #[error("rule {index} of the seccomp profile names no system call")]
    NoName {
        /// Position of the rule, from 0.
        index: usize,
    },
    /// An argument that no system call has.
    #[error(
        "the seccomp rule for {syscall} compares argument {index}; arguments are numbered 0 to 5"
    )]
    ArgumentIndex {
        /// Name of the call.
        syscall: String,
        /// The argument's number.
        index: usize,
    },
    /// An error number out of range.
    #[error("the seccomp profile returns error number {value}; the kernel takes at most {maximum}")]
    ErrnoRange {
        /// The number.
        value: u32,
        /// Largest one that is valid.
        maximum: u32,
    },
    /// Notification where it would stop the container's own set-up.
    #[error("SCMP_ACT_NOTIFY cannot be used {0}: the container's set-up would wait for itself")]
    Notify(&'static str),
    /// A kernel version that is not one.
    #[error("the seccomp profile has minKernel \"{0}\"; write it as MAJOR.MINOR")]
    KernelVersion(String),
    /// The program is longer than the kernel takes.
    #[error(
        "the seccomp profile compiles to {instructions} instructions; the kernel takes at most {maximum}; use fewer rules or architectures"
    )]
    TooLong {
        /// Length of the program.
        instructions: usize,
        /// `BPF_MAXINSNS`.
        maximum: usize,
    },
}
