package source

import (
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// What replaces a trace is all of that lookup, and is shown in the place of it.
func TestTraceThatReplacesAnother(t *testing.T) {
	l := lookup(1)
	early := traceOf(l.client.Clone(), nil)
	early.Exchange.Path, early.Exchange.Duration, early.Exchange.RCode = trace.PathOf(l.client.Path.At(0)), nil, ""
	early.Outcome, early.Exchange.Outcome = trace.OutcomeUnanswered, trace.OutcomeUnanswered
	early.Exchange.Milestones.Response = trace.Progress{Read: trace.NotObservable}
	whole := traceOf(l.client, nil)
	whole.Outcome, whole.Replaces, whole.Exchange.Replaces = trace.OutcomeAnswered, true, true
	for _, records := range [][]trace.Record{{early, whole}, {early, lookup(2).client, whole}} {
		f := File{Path: "-", Stdin: strings.NewReader(lines(records...)), Stderr: t.Output(), Joining: realJoining()}
		var outcomes []string
		if _, err := f.Each(t.Context(), Request{}, func(got Lookup) error {
			if got.Trace.QName == whole.QName {
				outcomes = append(outcomes, got.Trace.Outcome)
			}
			return nil
		}); err != nil || len(outcomes) != 1 || outcomes[0] != trace.OutcomeAnswered {
			t.Errorf("%v, %v", outcomes, err)
		}
	}
}
