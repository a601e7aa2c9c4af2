# What containers run under on hosts with AppArmor, unless they are privileged or name another
# profile. A second line of defence: namespaces, capabilities and the system call filter come first.
profile gamut-default flags=(attach_disconnected,mediate_deleted) {
  file,
  network,
  capability,
  umount,

  # The engine stops and kills; containers signal and trace their own kind only.
  signal (receive) peer=unconfined,
  signal (send, receive) peer=gamut-default,
  ptrace (trace, read, tracedby, readby) peer=gamut-default,

  # No new mounts, and no going elsewhere.
  deny mount,

  # Of the kernel's own files only those of processes and of shared memory can be written.
  deny /proc/* w,
  deny /proc/[^1-9s]*/** w,
  deny /proc/s[^y]*/** w,
  deny /proc/sy[^s]*/** w,
  deny /proc/sys[^/]*/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/kernel/[^s]** w,
  deny /proc/sys/kernel/s[^h]** w,
  deny /proc/sys/kernel/sh[^m]** w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,
  deny /proc/kmem rwklx,
  deny /proc/mem rwklx,

  # Nothing of /sys but control groups, which are read-only unless delegated.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
