package dnstrace

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

// leftGoroutines returns the stacks of goroutines that are in this package's code, after
// giving them time to end.
func leftGoroutines() string {
	left := ownGoroutines()
	for end := time.Now().Add(6 * time.Second); left != "" && time.Now().Before(end); left = ownGoroutines() {
		time.Sleep(50 * time.Millisecond)
	}
	return left
}

// ownGoroutines returns the stacks with a function of this package that is no test's.
func ownGoroutines() string {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	var own []string
	for g := range strings.SplitSeq(string(stacks), "\n\n") {
		lines := strings.Split(g, "\n")
		for i, line := range lines[:len(lines)-1] {
			if strings.Contains(line, "/dnstrace/plugin.") && !strings.Contains(lines[i+1], "_test.go:") {
				own = append(own, g)
				break
			}
		}
	}
	return strings.Join(own, "\n\n")
}

// What TestMain looks for when all tests are done is found while it is there.
func TestOwnGoroutines(t *testing.T) {
	sink := newStuckSink()
	close(sink.let)
	o := newOutput(outputConfig{kind: outputFile, path: t.Name()}, sink, 1)
	o.push(longRecord(1))
	if got := ownGoroutines(); strings.Count(got, "plugin.(*output).push in goroutine") != 1 || strings.Contains(got, "TestOwnGoroutines(") {
		t.Errorf("found\n%s", got)
	}
	o.flush()
}
