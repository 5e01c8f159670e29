//! Sequences of tokens without their padding.
//!
//! Sequences of one batch differ in length, and most of an encoder's work is done on one token at a time. So tokens are
//! kept as the rows of one matrix [N, H], N being how many there are in all, and only attention sees them as sequences.
//! What is computed for a token is the same as with padding, up to rounding; padding costs next to nothing.

use tch::{Kind, TchError, Tensor};

/// What is added to the scores of padding. e^−30000 is 0 in every type, and the number fits an f16.
const PADDING_BIAS: f64 = -30_000.0;

/// Token sequences, B of them, of at most L tokens each and N in all.
#[derive(Debug)]
pub struct Batch {
    sequences: i64,
    length: i64,
    /// Tokens [N].
    ids: Tensor,
    /// Token types [N].
    types: Tensor,
    /// Place of each token in its sequence [N].
    positions: Tensor,
    /// Sequence of each token [N].
    owners: Tensor,
    /// Tokens of each sequence [B].
    lengths: Tensor,
    /// Row of each sequence's first token [B].
    first: Tensor,
    /// `None` when every sequence has L tokens: rows and places are then the same.
    padding: Option<Padding>,
}

/// How rows and the places of [B, L] belong together.
#[derive(Debug)]
struct Padding {
    /// Place of each row [N].
    places: Tensor,
    /// Row of each place [B·L]; a place without a token has that of a token before it.
    rows: Tensor,
    /// 0 where there is a token and [`PADDING_BIAS`] elsewhere: [B, 1, 1, L].
    bias: Tensor,
}

impl Batch {
    /// From token ids [B, L] and token types [B, L], both i64, and a mask [B, L] that is true for tokens and false for
    /// padding. All are on the same device. `ids` are rows of the word table that the encoder will be given.
    ///
    /// # Errors
    /// When the shapes differ, or a sequence is empty or has padding before a token.
    pub fn new(ids: &Tensor, types: &Tensor, mask: &Tensor) -> Result<Self, TchError> {
        let (sequences, length) = mask.size2()?;
        if ids.size() != mask.size() || types.size() != mask.size() {
            return Err(TchError::Shape(format!(
                "ids {:?}, types {:?} and mask {:?} of a batch differ",
                ids.size(),
                types.size(),
                mask.size()
            )));
        }
        let int = (Kind::Int64, mask.device());
        let lengths = mask.f_sum_dim_intlist(1i64, false, Kind::Int64)?;
        let column = Tensor::f_arange(length, int)?;
        let fits = column.f_lt_tensor(&lengths.f_unsqueeze(1)?)?.f_eq_tensor(mask)?.f_all()?;
        if !truth(&fits)? || !truth(&lengths.f_gt(0)?.f_all()?)? {
            return Err(TchError::Shape("a sequence is empty or has padding before a token".to_owned()));
        }

        let flat = mask.f_reshape([-1])?;
        let places = flat.f_nonzero()?.f_reshape([-1])?;
        let tokens = places.size1()?;
        let (first, padding) = if tokens == sequences * length {
            (Tensor::f_arange(sequences, int)?.f_mul_scalar(length)?, None)
        } else {
            let rows = flat.f_cumsum(0, Kind::Int64)?.f_sub_scalar(1)?;
            let first = rows.f_reshape([sequences, length])?.f_select(1, 0)?.f_contiguous()?;
            let bias = mask
                .f_logical_not()?
                .f_to_kind(Kind::Float)?
                .f_mul_scalar(PADDING_BIAS)?
                .f_reshape([sequences, 1, 1, length])?;
            (first, Some(Padding { places: places.shallow_clone(), rows, bias }))
        };
        let pick = |of: &Tensor| of.f_reshape([-1])?.f_index_select(0, &places);
        Ok(Self {
            sequences,
            length,
            ids: pick(ids)?,
            types: pick(types)?,
            positions: places.f_remainder(length)?,
            owners: places.f_floor_divide_scalar(length)?,
            lengths,
            first,
            padding,
        })
    }

    /// Sequences, B.
    #[must_use]
    pub fn sequences(&self) -> i64 {
        self.sequences
    }

    /// Tokens of the longest sequence, L.
    #[must_use]
    pub fn length(&self) -> i64 {
        self.length
    }

    /// Tokens of all sequences, N.
    #[must_use]
    pub fn tokens(&self) -> i64 {
        self.ids.numel() as i64
    }

    /// The rows [N, H] of tokens as [B, L, H], with zeros for padding.
    ///
    /// # Errors
    /// When there are not N rows, or there is too little memory.
    pub fn padded(&self, rows: &Tensor) -> Result<Tensor, TchError> {
        let spread = self.spread(rows)?;
        match &self.padding {
            None => Ok(spread),
            Some(padding) => {
                let empty = padding.bias.f_reshape([self.sequences, self.length, 1])?.f_ne(0)?;
                spread.f_masked_fill(&empty, 0.0)
            }
        }
    }

    /// The rows [M, H] of [B, L, H] that belong to tokens: the inverse of [`Batch::padded`].
    ///
    /// # Errors
    /// When the shape is another, or there is too little memory.
    pub fn rows(&self, padded: &Tensor) -> Result<Tensor, TchError> {
        let flat = padded.f_reshape([self.sequences * self.length, -1])?;
        match &self.padding {
            None => Ok(flat),
            Some(padding) => flat.f_index_select(0, &padding.places),
        }
    }

    /// As [`Batch::padded`], but with rows of other tokens in the place of padding: for what is masked later.
    pub(super) fn spread(&self, rows: &Tensor) -> Result<Tensor, TchError> {
        let shape = [self.sequences, self.length, -1];
        match &self.padding {
            None => rows.f_reshape(shape),
            Some(padding) => rows.f_index_select(0, &padding.rows)?.f_reshape(shape),
        }
    }

    /// The rows [B, H] of the sequences' first tokens.
    pub(super) fn first(&self, rows: &Tensor) -> Result<Tensor, TchError> {
        rows.f_index_select(0, &self.first)
    }

    /// The mean [B, H] of each sequence's rows.
    pub(super) fn mean(&self, rows: &Tensor) -> Result<Tensor, TchError> {
        // A product with a matrix of zeros and ones: it sums in f32 whatever the type, and so does its gradient.
        let all = Tensor::f_arange(self.sequences, (Kind::Int64, rows.device()))?.f_unsqueeze(1)?;
        let members = all.f_eq_tensor(&self.owners)?.f_to_kind(rows.kind())?;
        members.f_mm(rows)?.f_div(&self.lengths.f_to_kind(rows.kind())?.f_unsqueeze(1)?)
    }

    pub(super) fn ids(&self) -> &Tensor {
        &self.ids
    }

    pub(super) fn types(&self) -> &Tensor {
        &self.types
    }

    pub(super) fn positions(&self) -> &Tensor {
        &self.positions
    }

    /// What is added to scores, [B, 1, 1, L]; `None` where there is no padding.
    pub(super) fn bias(&self, kind: Kind) -> Result<Option<Tensor>, TchError> {
        self.padding.as_ref().map(|padding| padding.bias.f_to_kind(kind)).transpose()
    }
}

fn truth(one: &Tensor) -> Result<bool, TchError> {
    Ok(one.f_int64_value(&[])? != 0)
}
