package filter

import (
	"errors"
	"fmt"
)

// Bounds of what a filter costs. The author of a filter, the owner of the process that runs
// it, and the source of the records may be three parties.
const (
	maxExpression = 4 << 10 // bytes
	maxNodes      = 1000    // of the syntax tree
	maxPattern    = 1000    // instructions of a regular expression: \pL{100} has 100
	maxRange      = 1000    // numbers that a..b stands for
	maxCutset     = 16      // bytes of the characters that trim cuts off

	// maxSteps bounds the cost of one record: 8 ms for conditions, 70 ms and some twenty
	// megabytes for the fields of a record (BenchmarkMatch). The largest record of a tracer,
	// completely evaluated, takes a tenth.
	maxSteps = 250_000
	// maxElements bounds lists that an expression makes of a record.
	maxElements = 100_000
	// textPerStep is how many bytes of text are looked at in a step, patternPerStep how
	// many of them by one instruction of a regular expression.
	textPerStep, patternPerStep = 64, 16
	// stepsOfMethod is what a method of a time or a duration takes beside its arguments.
	stepsOfMethod = 50
	// maxText bounds a text that is put together of others.
	maxText = 64 << 10
)

// ErrTooExpensive is wrapped by the error for a record that takes more than maxSteps.
var ErrTooExpensive = fmt.Errorf("one record takes more than %d steps, as conditions on long lists within conditions on long lists do: ask for less", maxSteps)

// ErrBusy is wrapped by the error for a record that a filter does not evaluate because the
// records before it took all that [Filter.Within] allows.
var ErrBusy = errors.New("the records before it took all the time that a filter may take")

// budget is what is left for one record.
type budget struct{ left int }

func (b *budget) spend(steps int) error {
	if b.left -= steps; b.left < 0 {
		return ErrTooExpensive
	}
	return nil
}

// sizeOf returns how many steps it takes to go through a value once.
func sizeOf(v any) int {
	switch v := v.(type) {
	case string:
		return 1 + len(v)/textPerStep
	case []any:
		return 1 + len(v)
	case []string:
		return 1 + len(v)
	case []int:
		return 1 + len(v)
	case map[string]any:
		return 1 + len(v)
	}
	return 1
}

// wholeSizeOf returns how many steps it takes to go through a value and all within it,
// or more than limit.
func wholeSizeOf(v any, limit int) int {
	size := sizeOf(v)
	switch v := v.(type) {
	case []any:
		for i := 0; i < len(v) && size <= limit; i++ {
			size += wholeSizeOf(v[i], limit-size)
		}
	case map[string]any:
		for _, x := range v {
			if size > limit {
				break
			}
			size += wholeSizeOf(x, limit-size)
		}
	}
	return size
}
