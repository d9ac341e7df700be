//! What memory may be used for: calls in the manner of `set_memory`, on page ranges of the linear map.

use linmap_live::{Change, Step, Target};
use linmap_vmsa::{Access, Execute, PaRange, VaRange};

use super::{ChangeError, Changed, Editor, LinearMap, Request, in_use};

/// What a range of memory becomes. Nothing but [`LinearMap::make_text`] makes memory executable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    /// Writes fault.
    ReadOnly,
    /// Writes are allowed; refused where memory is executable.
    ReadWrite,
    /// Instruction fetches fault.
    NoExecute,
    /// Every access faults. What the leaves said is kept.
    Invalid,
    /// Accesses are allowed again, as they were.
    Valid,
}

impl Protection {
    /// The name in the shell: `ro`, `rw`, `nx`, `invalid`, `valid`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "ro",
            Self::ReadWrite => "rw",
            Self::NoExecute => "nx",
            Self::Invalid => "invalid",
            Self::Valid => "valid",
        }
    }

    /// The protection with this name.
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
        // A table, in the order of the names: what a match would be made of takes longer to work out.
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
    /// Gives `range`, whole pages of mapped memory, another protection. Larger leaves that reach beyond it are split to the
    /// largest leaves that do not; where it makes leaves alike again and no parking is needed for it, they are folded.
    ///
    /// When the call returns, no CPU has a translation any more by which the range was used before. A range in the
    /// image's data changes in the image's own mapping, and its linear alias follows: the alias is never writable, and
    /// invalid when the range is.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn protect<const N: usize, E: Editor<N>>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
        protection: Protection,
    ) -> Result<Changed, ChangeError> {
        let target = self.linear(range)?;
        if range.overlaps(self.image.range()) {
            return self.protect_image(editor, steps, range, protection);
        }
        self.protect_memory(editor, steps, range, target, protection.change())
    }

    /// Gives `range`, which overlaps the image, another protection.
    #[cold]
    #[inline(never)]
    fn protect_image<const N: usize, E: Editor<N>>(
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
        let alias = match protection {
            // The alias is read-only and never executable anyway.
            Protection::ReadOnly | Protection::ReadWrite | Protection::NoExecute => Changed::default(),
            // First, since it may have to be split, for which there may be no frame. The image itself is made of pages.
            Protection::Invalid | Protection::Valid => {
                self.change(editor, steps, range, Request::Protect(protection.change()))?
            }
        };
        let own = VaRange::new(image.own(range.start), range.len());
        let changed = self.run(editor, steps, own, Request::Protect(protection.change()))?;
        Ok(alias.and(changed))
    }

    /// Makes `range` read-only and executable by the kernel: text. The one call that makes memory executable. The
    /// instructions must have been written, and cleaned to the point of unification, before; the caller
    /// invalidates the instruction caches of all CPUs afterwards, each of which needs an ISB before it executes them.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn make_text<const N: usize, E: Editor<N>>(
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

    /// Makes `range` what memory is before anything is changed: readable and writable, and not executable. One change, so that
    /// none of it is made when it fails.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn make_data<const N: usize, E: Editor<N>>(
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

    fn protect_outside_image<const N: usize, E: Editor<N>>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
        change: Change,
    ) -> Result<Changed, ChangeError> {
        let target = self.linear(range)?;
        let image = self.image.range();
        if range.overlaps(image) {
            return Err(ChangeError::ImageText { range, image });
        }
        self.protect_memory(editor, steps, range, target, change)
    }

    /// Changes memory at `range` that is mapped once, at `target`, and folds what became alike.
    #[inline(always)]
    fn protect_memory<const N: usize, E: Editor<N>>(
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
                let may_fold = plan.may_fold();
                let changed = in_use(editor, &mut window, plan);
                if !may_fold {
                    return changed;
                }
                changed?
            }
            Err(error) => match self.run_otherwise(editor, steps, target, Request::Protect(change), error) {
                Ok(changed) => changed,
                Err(error) => return Err(self.explained(editor.memblock(), range, error)),
            },
        };
        Ok(changed.and(self.fold_around(editor, steps, range)))
    }
}
