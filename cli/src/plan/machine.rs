//! The memory that an input describes.

use linmap_fdt::{Fdt, parse_dtb, string};
use linmap_memblock::{FdtError, IomemError, Memblock, UefiError, UefiMap};
use linmap_vmsa::{Granule, Pa, PaRange};

use crate::failure::Failure;
use crate::plan::image::{self, ImageOption, ImageSource, PlacedImage, WantedImage};
use crate::plan::input::{Input, InputKind};
use crate::plan::layout_file::LayoutFile;
use crate::plan::settings::MapOptions;
use crate::plan::uefi_text;

/// The most ranges of each kind.
pub const REGIONS: usize = 4096;

/// What the user says about every input.
#[derive(Debug)]
pub struct Given {
    /// How to map it.
    pub options: MapOptions,
    /// The image.
    pub image: Option<ImageOption>,
    /// Memory for device trees that leave it to their boot loader.
    pub banks: Vec<PaRange>,
}

/// A machine's memory, with the kernel image reserved.
#[derive(Debug)]
pub struct Machine {
    /// What the machine calls itself.
    pub model: Option<String>,
    /// Its memory.
    pub memory: Box<Memblock<REGIONS>>,
    /// The kernel image.
    pub image: Option<PlacedImage>,
    /// How to map it: the command line's options, then the input's.
    pub options: MapOptions,
    /// What was left out, merged or assumed.
    pub notes: Vec<String>,
}

impl Machine {
    /// Reads the memory that `input` describes.
    pub fn read(input: &Input, given: &Given) -> Result<Self, Failure> {
        let mut machine = Self {
            model: None,
            memory: Box::new(Memblock::new()),
            image: None,
            options: given.options,
            notes: Vec::new(),
        };
        let fdt = match input.kind {
            InputKind::DeviceTree => Some(parse_dtb(&input.bytes)?),
            _ => None,
        };
        let wanted = machine.fill(input, fdt, given)?;
        let granule = machine.options.granule();
        machine.place_image(given.image, wanted, granule)?;
        if let Some(fdt) = fdt {
            machine.place_dynamic(fdt, granule);
        }
        Ok(machine)
    }

    /// Fills the memory. Returns the image that the input names.
    fn fill(
        &mut self,
        input: &Input,
        fdt: Option<Fdt<'_>>,
        given: &Given,
    ) -> Result<Option<WantedImage>, Failure> {
        if fdt.is_none() && !given.banks.is_empty() {
            self.notes.push("--memory is not used: only a device tree leaves memory to a boot loader".into());
        }
        match input.kind {
            InputKind::DeviceTree => {
                if let Some(fdt) = fdt {
                    self.fill_from_tree(fdt, &given.banks)?;
                }
                Ok(None)
            }
            InputKind::Iomem => {
                self.memory.fill_from_iomem(input.text()).map_err(iomem_failure)?;
                Ok(image::of_iomem(input.text()))
            }
            InputKind::UefiMap => {
                self.fill_from_uefi(uefi_text::map_of(&input.bytes)?, &[])?;
                Ok(None)
            }
            InputKind::UefiText => {
                let (bytes, lines) = uefi_text::descriptors(input.text())?;
                let map = UefiMap::new(&bytes, uefi_text::DESCRIPTOR);
                self.fill_from_uefi(map.map_err(|error| uefi_failure(&error, &lines))?, &lines)?;
                Ok(None)
            }
            InputKind::Layout => {
                let layout = LayoutFile::parse(input.text())?;
                layout.fill(&mut self.memory)?;
                self.options = self.options.or(layout.options);
                Ok(layout.image())
            }
        }
    }

    fn fill_from_tree(&mut self, fdt: Fdt<'_>, banks: &[PaRange]) -> Result<(), Failure> {
        self.model = fdt.root().property("model").and_then(string).map(str::to_owned);
        match self.memory.fill_from_fdt(fdt) {
            Ok(warnings) => {
                self.notes.extend(warnings.first.iter().map(ToString::to_string));
                if !banks.is_empty() {
                    self.notes.push("--memory is not used: the device tree has memory".into());
                }
                Ok(())
            }
            Err(FdtError::NoMemoryNode | FdtError::NothingMappable { memory: 0 }) if !banks.is_empty() => {
                self.memory.fill_from_reservations(fdt, &[])?;
                for &bank in banks {
                    self.memory.add(bank)?;
                }
                self.notes
                    .push("memory is as --memory says: the device tree leaves it to a boot loader".into());
                match self.memory.mappable(0x1000).next() {
                    Some(_) => Ok(()),
                    None => Err(Failure::new("all memory is no-map")),
                }
            }
            Err(FdtError::NoMemoryNode | FdtError::NothingMappable { memory: 0 }) => {
                Err(Failure::new("the device tree says nothing of memory, which its boot loader fills in")
                    .hint("give it by --memory SIZE@START, or plan /sys/firmware/fdt of the running machine"))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn fill_from_uefi(&mut self, map: UefiMap<'_>, lines: &[usize]) -> Result<(), Failure> {
        self.memory.fill_from_uefi(map).map_err(|error| uefi_failure(&error, lines))
    }

    fn place_image(
        &mut self,
        option: Option<ImageOption>,
        input: Option<WantedImage>,
        granule: Granule,
    ) -> Result<(), Failure> {
        let (wanted, source) = match (option, input) {
            (Some(ImageOption::None), _) => return Ok(()),
            (Some(ImageOption::Wanted(wanted)), _) => (wanted, ImageSource::Option),
            (None, Some(wanted)) => (wanted, ImageSource::Input),
            (None, None) => (WantedImage::USUAL, ImageSource::Placed),
        };
        self.image = PlacedImage::new(wanted, source, &self.memory, granule)?;
        match self.image {
            None => {
                let len = wanted.read_only.saturating_add(wanted.data);
                self.notes.push(format!("no {len:#x} bytes are free for a kernel image: planned without"));
            }
            Some(placed) => {
                let range = placed.parts.range();
                let in_memory = self.memory.mappable(granule.bytes()).any(|ram| ram.covers(range));
                if !in_memory {
                    self.notes.push(format!("not all of the kernel image {range} is memory"));
                }
                self.memory.reserve(range)?;
            }
        }
        Ok(())
    }

    /// Places what the tree asks a kernel to choose, as a boot does.
    fn place_dynamic(&mut self, fdt: Fdt<'_>, granule: Granule) {
        let notes = &mut self.notes;
        self.memory.place_dynamic(fdt, granule.bytes(), &mut |placed| {
            if let Err(error) = placed {
                notes.push(error.to_string());
            }
        });
    }

    /// Where memory ends.
    pub fn end(&self) -> Pa {
        let page = self.options.granule().bytes();
        self.memory.mappable(page).next_back().map_or(Pa(0), |last| last.end)
    }
}

fn iomem_failure(error: IomemError) -> Failure {
    let failure = Failure::from(error);
    match error {
        IomemError::Hidden { .. } => failure.hint("run as root: sudo cat /proc/iomem | linmap plan -"),
        _ => failure,
    }
}

/// The failure of a map that was read from `lines` of text, or from bytes.
fn uefi_failure(error: &UefiError, lines: &[usize]) -> Failure {
    let nth = match *error {
        UefiError::NoPages { nth, .. }
        | UefiError::Unaligned { nth, .. }
        | UefiError::Wraps { nth, .. }
        | UefiError::Overlap { nth, .. }
        | UefiError::Regions { nth, .. } => Some(nth),
        _ => None,
    };
    let failure = Failure::new(error);
    match nth.and_then(|nth| lines.get(nth)) {
        Some(line) => failure.of(format_args!("line {line}")),
        None => failure,
    }
}
