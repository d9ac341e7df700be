//! What memory may be used for: protections of page ranges.

use linmap_live::{Change, Step, Target};
use linmap_vmsa::{Access, Execute, PaRange, VaRange};

use super::apply::in_use;
use super::change_error::ChangeError;
use super::changed::Changed;
use super::editor::Editor;
use super::linear_map::LinearMap;
use super::mappable::explained;
use super::request::Request;

/// What a range of memory becomes. [`LinearMap::make_text`] alone makes memory executable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    /// Writes fault.
    ReadOnly,
    /// Writes are allowed. Refused where memory is executable.
    ReadWrite,
    /// Instruction fetches fault.
    NoExecute,
    /// Every access faults. The leaves remember their other attributes.
    Invalid,
    /// Accesses are allowed again, as before.
    Valid,
}

impl Protection {
    /// Returns the name: `ro`, `rw`, `nx`, `invalid` or `valid`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "ro",
            Self::ReadWrite => "rw",
            Self::NoExecute => "nx",
            Self::Invalid => "invalid",
            Self::Valid => "valid",
        }
    }

    /// Returns the protection named `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        const ALL: [Protection; 5] = [
            Protection::ReadOnly,
            Protection::ReadWrite,
            Protection::NoExecute,
            Protection::Invalid,
            Protection::Valid,
        ];
        ALL.into_iter().find(|protection| protection.name() == name)
    }

    const fn change(self) -> Change {
        const NOTHING: Change = Change { access: None, execute: None, valid: None };
        // A table in the order of the variants: a match costs more instructions.
        const CHANGES: [Change; 5] = [
            Change { access: Some(Access::KernelReadOnly), ..NOTHING },
            Change { access: Some(Access::KernelReadWrite), ..NOTHING },
            Change { execute: Some(Execute::Never), ..NOTHING },
            Change { valid: Some(false), ..NOTHING },
            Change { valid: Some(true), ..NOTHING },
        ];
        CHANGES[self as usize]
    }
}

impl LinearMap {
    /// Gives `range`, whole pages of mapped memory, another protection. Leaves that reach beyond it
    /// are split no further than needed. Leaves within it that become equal are folded, if that
    /// needs no parking. Leaves that reach beyond it are never folded: a page that changes to and
    /// fro splits a block once, and [`fold`](Self::fold) makes it whole again.
    ///
    /// When the call returns, no CPU holds an old translation of the range. A range in the image's
    /// data changes in the image's own mapping, the only one that it has.
    ///
    /// Safe code can't end a permission that other code needs:
    ///
    /// ```compile_fail,E0133
    /// # use linmap::{Editor, LinearMap, Protection};
    /// # use linmap_live::Step;
    /// # use linmap_vmsa::PaRange;
    /// fn protect(map: &mut LinearMap, editor: &mut impl Editor, steps: &mut [Step], heap: PaRange) {
    ///     let _ = map.protect(editor, steps, heap, Protection::Invalid);
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ChangeError`].
    ///
    /// # Safety
    /// Nothing needs a permission that `range` loses: no CPU reads, writes or executes there as it
    /// may not any more, until another call permits it again.
    pub unsafe fn protect<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
        protection: Protection,
    ) -> Result<Changed, ChangeError> {
        let target = self.region.linear(range)?;
        if range.overlaps(self.image.range()) {
            return self.protect_image(editor, steps, range, protection);
        }
        self.protect_memory(editor, steps, range, target, protection.change())
    }

    /// Gives `range`, which overlaps the image, another protection.
    #[cold]
    #[inline(never)]
    fn protect_image<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
        protection: Protection,
    ) -> Result<Changed, ChangeError> {
        let image = self.image;
        if range.overlaps(image.read_only) {
            return Err(ChangeError::ImageText { range, image: image.read_only });
        }
        if !image.data.covers(range) {
            return Err(ChangeError::PartlyImage { range, image: image.data });
        }
        let own = VaRange::new(image.own(range.start), range.len());
        self.run(editor, steps, own, Request::Protect(protection.change()))
    }

    /// Makes `range` text: read-only, and executable by the kernel. No other call makes memory
    /// executable.
    ///
    /// The caller writes the instructions before the call and cleans them to the point of
    /// unification. After it, the caller invalidates the instruction caches of all CPUs, and
    /// each CPU needs an ISB before it executes the instructions.
    ///
    /// # Errors
    /// [`ChangeError`].
    ///
    /// # Safety
    /// Nothing writes to `range` as long as it is text, and what it holds may be executed.
    pub unsafe fn make_text<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
    ) -> Result<Changed, ChangeError> {
        let change = Change {
            access: Some(Access::KernelReadOnly),
            execute: Some(Execute::Kernel),
            ..Change::default()
        };
        self.protect_outside_image(editor, steps, range, change)
    }

    /// Makes `range` data, as memory is after the build: valid, writable, not executable. It is one
    /// change: if it fails, nothing is changed.
    ///
    /// # Errors
    /// [`ChangeError`].
    ///
    /// # Safety
    /// Nothing executes what `range` holds, or relies on its being read-only or invalid.
    pub unsafe fn make_data<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
    ) -> Result<Changed, ChangeError> {
        let change = Change {
            access: Some(Access::KernelReadWrite),
            execute: Some(Execute::Never),
            valid: Some(true),
        };
        self.protect_outside_image(editor, steps, range, change)
    }

    fn protect_outside_image<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
        change: Change,
    ) -> Result<Changed, ChangeError> {
        let target = self.region.linear(range)?;
        let image = self.image.range();
        if range.overlaps(image) {
            return Err(ChangeError::ImageText { range, image });
        }
        self.protect_memory(editor, steps, range, target, change)
    }

    /// Changes memory at `range` that is mapped once, at `target`, and folds leaves in it that
    /// became equal.
    #[inline(always)]
    fn protect_memory<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
        target: VaRange,
        change: Change,
    ) -> Result<Changed, ChangeError> {
        let mut window = editor.window();
        let in_use_target = Target::InUse(target);
        let plan = self.tree.plan_protect(in_use_target, change, steps, &mut window, &mut editor.frames());
        let changed = match plan {
            Ok(plan) => {
                let may_fold = plan.may_fold() && !plan.steps().is_empty();
                let changed = in_use(editor, &mut window, plan);
                if !may_fold {
                    return changed;
                }
                changed?
            }
            Err(error) => {
                let parked = self.run_otherwise(editor, steps, target, Request::Protect(change), error);
                return parked.map_err(|error| explained(&editor.memory(), &self.region, range, error));
            }
        };
        Ok(changed.and(self.fold_inside(editor, steps, target)))
    }
}
