package filter

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm/runtime"
)

// budgetName is the variable with the budget of the record. As the names of the
// functions here, it is no word of the language: only the patcher uses it.
const budgetName = "the budget"

// function is what the patcher puts in the place of an operator, or around an operand.
type function func(b *budget, args []any) (any, error)

// Names of functions beside those of operators.
const (
	callStep       = "step"        // a number of steps, a value: the value
	callWeigh      = "weigh"       // a value, which is gone through once: the value
	callWeighWhole = "weigh whole" // and all within it
	callMatches    = "matches"     // a text, a pattern
)

var functions = func() map[string]function {
	all := map[string]function{
		callStep: func(b *budget, args []any) (any, error) { return args[1], b.spend(args[0].(int)) },
		callWeigh: func(b *budget, args []any) (any, error) {
			return args[0], b.spend(sizeOf(args[0]))
		},
		callWeighWhole: func(b *budget, args []any) (any, error) {
			return args[0], b.spend(wholeSizeOf(args[0], b.left))
		},
		callMatches:  matches,
		"contains":   onTexts(strings.Contains),
		"startsWith": onTexts(strings.HasPrefix),
		"endsWith":   onTexts(strings.HasSuffix),
		"in": func(b *budget, args []any) (any, error) {
			// Each element may be compared with all of the first.
			if err := b.spend(sizeOf(args[1]) * wholeSizeOf(args[0], b.left)); err != nil {
				return nil, err
			}
			return runtime.In(args[0], args[1]), nil
		},
	}
	for operator, op := range nullSafe {
		all[operator] = op.call
	}
	return all
}()

// options hands the functions to the compiler.
func options() []expr.Option {
	var list []expr.Option
	for name, f := range functions {
		list = append(list, expr.Function(functionName(name), func(args ...any) (out any, err error) {
			// The runtime panics on operands that do not fit each other; the message names
			// their types.
			defer func() {
				if r := recover(); r != nil {
					err = fmt.Errorf("%v", r)
				}
			}()
			return f(args[0].(*budget), args[1:])
		}))
	}
	return list
}

// functionName is no word of the language.
func functionName(name string) string { return "bounded " + name }

// onTexts makes a function of one that goes through two texts; with nil it is false.
func onTexts(is func(a, b string) bool) function {
	return func(b *budget, args []any) (any, error) {
		if runtime.IsNil(args[0]) || runtime.IsNil(args[1]) {
			return false, nil
		}
		x, ok1 := args[0].(string)
		y, ok2 := args[1].(string)
		if !ok1 || !ok2 {
			return nil, fmt.Errorf("expected two strings, got %s and %s", kindName(args[0]), kindName(args[1]))
		}
		if err := b.spend(sizeOf(x) + sizeOf(y)); err != nil {
			return nil, err
		}
		return is(x, y), nil
	}
}

// pattern is a regular expression and what it takes for each byte of a text.
type pattern struct {
	*regexp.Regexp
	instructions int
}

func matches(b *budget, args []any) (any, error) {
	if runtime.IsNil(args[0]) {
		return false, nil
	}
	text, ok := args[0].(string)
	if !ok {
		return nil, fmt.Errorf("matches: expected a string, got %s", kindName(args[0]))
	}
	p := args[1].(*pattern)
	if err := b.spend(1 + len(text)*p.instructions/patternPerStep); err != nil {
		return nil, err
	}
	return p.MatchString(text), nil
}

// nullSafe is what an operator does with two operands that are not nil. With a nil one a
// comparison is false, and a sum is nil: unknown.
var nullSafe = map[string]nullSafeOperator{
	"<":  {func(a, b any) any { return runtime.Less(a, b) }, false},
	"<=": {func(a, b any) any { return runtime.LessOrEqual(a, b) }, false},
	">":  {func(a, b any) any { return runtime.More(a, b) }, false},
	">=": {func(a, b any) any { return runtime.MoreOrEqual(a, b) }, false},
	"+":  {runtime.Add, nil},
	"-":  {runtime.Subtract, nil},
	"*":  {runtime.Multiply, nil},
	"/":  {func(a, b any) any { return runtime.Divide(a, b) }, nil},
}

type nullSafeOperator struct {
	apply func(a, b any) any
	null  any
}

func (op nullSafeOperator) call(b *budget, args []any) (any, error) {
	if runtime.IsNil(args[0]) || runtime.IsNil(args[1]) {
		return op.null, nil
	}
	if err := b.spend(sizeOf(args[0]) + sizeOf(args[1])); err != nil {
		return nil, err
	}
	out := op.apply(args[0], args[1])
	if s, ok := out.(string); ok && len(s) > maxText {
		return nil, errors.New("a text of more than 64 KiB is put together")
	}
	return out, nil
}
