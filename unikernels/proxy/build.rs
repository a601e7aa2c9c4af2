//! Links this application as a unikernel.
fn main() {
    gamut_libos_build::unikernel();
}
