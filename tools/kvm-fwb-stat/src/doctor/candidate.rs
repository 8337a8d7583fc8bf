// SPDX-License-Identifier: GPL-2.0

//! A file that somebody means to load: what the kernel will look at before it takes it.

use object::{Architecture, Object, ObjectKind, ObjectSection};
use std::{fs, path::Path};

/// What a module's file shows.
#[derive(Debug)]
pub struct Candidate {
    /// An object for arm64.
    pub is_arm: bool,
    /// The name of the module.
    pub name: Option<String>,
    /// The release and options of the kernel that it was built for.
    pub vermagic: Option<String>,
    /// What stands behind the object.
    pub signature: Signature,
}

/// What stands behind a module's object; `module_signature.h` of the kernel's uapi.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signature {
    /// Nothing.
    None,
    /// A signature that has the form of one. Who made it, and of what, only the kernel checks.
    Present,
    /// What the kernel refuses even where it asks for none.
    Malformed,
}

/// What a signed module ends with.
const MARKER: &[u8] = b"~Module signature appended~\n";
/// `struct module_signature`: eight bytes, of which the third is the kind, and a big-endian length.
const TRAILER: usize = 12;
/// Its kind that is a PKCS#7 message, and the only one.
const PKCS7: u8 = 2;

impl Candidate {
    /// Looks at the file.
    ///
    /// # Errors
    ///
    /// Why it cannot be a module, in words.
    pub fn look(path: &Path) -> Result<Self, String> {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        Self::of(&bytes)
    }

    fn of(bytes: &[u8]) -> Result<Self, String> {
        let packed: [&[u8]; 3] = [b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
        if packed.iter().any(|magic| bytes.starts_with(magic)) {
            return Err("it is compressed: unpack it first".into());
        }
        let object = object::File::parse(bytes)
            .map_err(|error| format!("it is no kernel module: {error}"))?;
        if object.kind() != ObjectKind::Relocatable {
            return Err("it is no kernel module, but a program or library".into());
        }
        let info = (object.section_by_name(".modinfo")).and_then(|section| section.data().ok());
        let info = info.ok_or("it is no kernel module: it has no .modinfo")?;
        let value = |name: &str| {
            info.split(|&c| c == 0).find_map(|line| {
                let line = String::from_utf8_lossy(line);
                let value = line.strip_prefix(name)?.strip_prefix('=')?;
                Some(value.replace(|c: char| c.is_control(), "?"))
            })
        };
        Ok(Self {
            is_arm: object.architecture() == Architecture::Aarch64 && object.is_little_endian(),
            name: value("name"),
            vermagic: value("vermagic"),
            signature: Signature::of(bytes),
        })
    }
}

impl Signature {
    fn of(module: &[u8]) -> Self {
        let Some(module) = module.strip_suffix(MARKER) else {
            return Self::None;
        };
        let is_sound = || {
            let (rest, trailer) = module.split_at_checked(module.len().checked_sub(TRAILER)?)?;
            let (fields, length) = trailer.split_at_checked(TRAILER - 4)?;
            let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
            // All but the kind are 0 for PKCS#7.
            let has_form = (fields.iter().enumerate())
                .all(|(i, &field)| field == if i == 2 { PKCS7 } else { 0 });
            (has_form && length > 0 && length < rest.len()).then_some(())
        };
        match is_sound() {
            Some(()) => Self::Present,
            None => Self::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_told_by_its_form() {
        let signed = |fields: [u8; 8], length: u32| {
            let mut module = b"object, and then PKCS#7".to_vec();
            module.extend(fields);
            module.extend(length.to_be_bytes());
            module.extend(MARKER);
            Signature::of(&module)
        };
        assert_eq!(signed([0, 0, 2, 0, 0, 0, 0, 0], 7), Signature::Present);
        assert_eq!(signed([0, 0, 1, 0, 0, 0, 0, 0], 7), Signature::Malformed);
        assert_eq!(signed([0, 4, 2, 0, 0, 0, 0, 0], 7), Signature::Malformed);
        assert_eq!(signed([0, 0, 2, 0, 0, 0, 0, 0], 23), Signature::Malformed);
        assert_eq!(signed([0, 0, 2, 0, 0, 0, 0, 0], 0), Signature::Malformed);
        assert_eq!(Signature::of(b"object"), Signature::None);
        assert_eq!(Signature::of(MARKER), Signature::Malformed);
        assert_eq!(Signature::of(b""), Signature::None);
    }

    #[test]
    fn what_is_no_module_says_so() {
        for (bytes, words) in [
            (&b"\xfd7zXZ\0..."[..], "compressed"),
            (b"#!/bin/sh\n", "no kernel module"),
            (b"", "no kernel module"),
            (b"\x7fELF\x02\x01\x01", "no kernel module"),
        ] {
            let told = Candidate::of(bytes).unwrap_err();
            assert!(told.contains(words), "{told}");
        }
    }
}
