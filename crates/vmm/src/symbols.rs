//! Names of addresses, from the symbol table of an ELF file.

use gamut_abi::guest::bytes::{u16_at, u32_at, u64_at};
use gamut_abi::guest::elf::symbol_table;

const SYMBOL_BYTES: usize = 24;
const STT_FUNC: u8 = 2;
const STT_NOTYPE: u8 = 0;

/// A function and the distance of an address from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name, demangled.
    pub function: String,
    /// Bytes from its beginning.
    pub offset_bytes: u64,
}

/// The function in which an address lies. `None` if the file has no symbols, or none covers it.
#[must_use]
pub fn find(file: &[u8], address: u64) -> Option<Place> {
    let (symbols, strings) = symbol_table(file)?;
    let strings = file.get(strings)?;
    let mut best: Option<(u64, &[u8])> = None;
    for symbol in file.get(symbols)?.chunks_exact(SYMBOL_BYTES) {
        let kind = symbol.get(4)? & 0xf;
        let (value, bytes) = (u64_at(symbol, 8)?, u64_at(symbol, 16)?);
        let is_code = kind == STT_FUNC || kind == STT_NOTYPE;
        if !is_code || u16_at(symbol, 6) == Some(0) || value > address {
            continue;
        }
        // A label of assembly has no size: it counts until the next symbol.
        if bytes != 0 && address - value >= bytes {
            continue;
        }
        if best.is_some_and(|(found, _)| found >= value) {
            continue;
        }
        let name = usize::try_from(u32_at(symbol, 0)?)
            .ok()
            .and_then(|at| strings.get(at..))
            .and_then(|rest| rest.split(|byte| *byte == 0).next())
            .filter(|name| !name.is_empty());
        if let Some(name) = name {
            best = Some((value, name));
        }
    }
    let (value, name) = best?;
    let name = String::from_utf8_lossy(name.get(..name.len().min(1024))?).into_owned();
    Some(Place {
        function: format!("{:#}", rustc_demangle::demangle(&name)),
        offset_bytes: address - value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_function_of_this_program_is_found() {
        let file = std::fs::read("/proc/self/exe").unwrap();
        let (symbols, _) = symbol_table(&file).expect("tests are not stripped");
        let some = file[symbols]
            .chunks_exact(SYMBOL_BYTES)
            .find(|symbol| symbol[4] & 0xf == STT_FUNC && u64_at(symbol, 16) > Some(8))
            .expect("a function");
        let address = u64_at(some, 8).unwrap();
        let place = find(&file, address + 4).expect("a place");
        assert_eq!(place.offset_bytes, 4);
        assert!(!place.function.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(data: Vec<u8>, address: u64) {
            let _ = find(&data, address);
        }
    }
}
