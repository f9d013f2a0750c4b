// Package filter selects records with an expression over the field names of
// their JSON, in the language of github.com/expr-lang/expr:
//
//	rcode == "NXDOMAIN" and client.namespace == "demo"
//	duration_seconds > 0.5
//	any(upstreams, .join == "none")
//	len(diagnosis) > 0
//	any(exchange.drops, .reason == "NO_SOCKET")
//
// One expression serves every kind of record. A field that a kind of record does
// not have, and one that is null, is nil; nil equals only nil, and is neither
// less nor greater than anything, so that no condition has to guard against it.
// A list is never nil, only empty. What an expression may cost is bounded, whatever
// the record: one that cannot be is refused, and a record that takes too much is an
// error of [Filter.Match]. `time` is a time, for `now() - time <
// duration("5m")`; everything else is what the JSON shows.
package filter

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"
	"golang.org/x/time/rate"

	"github.com/dnstrace/dnstrace/trace"
)

// Filter is a compiled expression. It may be used from many goroutines.
type Filter struct {
	program   *vm.Program
	uses      map[string]bool // the record's fields that the expression names
	allowance *rate.Limiter   // of steps; nil: any number of records
}

// Compile compiles an expression. The error says where it is wrong, and for a
// field that no record has, what there is instead.
func Compile(expression string) (*Filter, error) {
	if strings.TrimSpace(expression) == "" {
		return nil, errors.New(`the filter is empty: expected an expression such as rcode == "NXDOMAIN"`)
	}
	if len(expression) > maxExpression {
		return nil, fmt.Errorf("filter: it has %d bytes, more than %d: ask for less", len(expression), maxExpression)
	}
	names := schema.typesMap()
	names[budgetName] = types.Any
	p := &patcher{uses: map[string]bool{}}
	program, err := expr.Compile(expression, append(options(), expr.Env(names), expr.Patch(p), expr.MaxNodes(maxNodes))...)
	switch {
	case p.err != nil:
		return nil, p.err
	case err != nil:
		return nil, compileError(expression, err)
	}
	f := &Filter{program: program, uses: p.uses}
	// Fields have no type at compile time, since each may be null. Evaluating the expression
	// on complete records finds type errors, such as rcode > 5, now and not at the first
	// record.
	for _, r := range samples() {
		if _, err := f.Match(r); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// Names tells whether the expression names a field of records.
func (f *Filter) Names(field string) bool { return f.uses[field] }

// Within bounds the steps that the filter takes a second, over all records: a node has other
// work. Call it before the first Match.
func (f *Filter) Within(steps int) {
	f.allowance = rate.NewLimiter(rate.Limit(steps), max(steps, maxSteps))
}

// Match tells whether a record matches the expression. The error is of a kind that only
// shows with a value: a number compared with a string, say. It wraps [ErrTooExpensive] where
// the record takes too much, and [ErrBusy] where it was not evaluated.
func (f *Filter) Match(r trace.Record) (bool, error) {
	now := time.Now()
	if f.allowance != nil && f.allowance.TokensAt(now) < 1 {
		return false, fmt.Errorf("filter: %w", ErrBusy)
	}
	b := &budget{left: maxSteps}
	out, err := f.run(r, b)
	if f.allowance != nil {
		// More than there is delays the records after it.
		f.allowance.ReserveN(now, min(maxSteps-b.left, maxSteps))
	}
	var at *file.Error
	switch {
	case err == nil:
	case errors.Is(err, ErrTooExpensive) || b.left < 0:
		return false, fmt.Errorf("filter: %w", ErrTooExpensive)
	case !errors.As(err, &at):
		return false, fmt.Errorf("filter: %w", err)
	case at.Message == "memory budget exceeded":
		return false, fmt.Errorf("filter: %w", ErrTooExpensive)
	case strings.HasPrefix(at.Message, "cannot fetch "), strings.HasPrefix(at.Message, "index out of range"):
		// upstreams[0].attempt is an object in a trace and a number in a query,
		// and a list may be shorter: the record lacks what was asked for.
		return false, nil
	default:
		return false, fmt.Errorf("filter: column %d: %s", at.Column+1, at.Message)
	}
	switch out := out.(type) {
	case bool:
		return out, nil
	case nil:
		return false, nil
	}
	return false, fmt.Errorf("filter: the expression gives %s, expected true or false", kindName(out))
}

// run evaluates the expression.
func (f *Filter) run(r trace.Record, b *budget) (any, error) {
	env := environment(r, f.uses, b)
	if err := b.spend(0); err != nil {
		return nil, err
	}
	env[budgetName] = b
	machine := vm.VM{MemoryBudget: maxElements}
	return machine.Run(f.program, env)
}

func compileError(expression string, err error) error {
	var at *file.Error
	if !errors.As(err, &at) {
		return fmt.Errorf("filter: %w", err)
	}
	if strings.Contains(at.Message, "exceeds maximum allowed nodes") {
		return errNoBound
	}
	where := fmt.Sprintf("filter: column %d: %s", at.Column+1, at.Message)
	if name, ok := strings.CutPrefix(at.Message, "unknown name "); ok {
		where += "; " + suggest(expression, name, false)
	} else if name, ok := strings.CutPrefix(at.Message, "unknown field "); ok {
		where += "; " + suggest(expression, name, true)
	}
	return errors.New(where)
}

// kindName says what a value is in the words of the expression's language.
func kindName(v any) string {
	switch reflect.TypeOf(v).Kind() {
	case reflect.String:
		return "a string"
	case reflect.Slice:
		return "a list"
	case reflect.Map:
		return "an object"
	case reflect.Int, reflect.Float64:
		return "a number"
	}
	return fmt.Sprintf("a %T", v)
}
