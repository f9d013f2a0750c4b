package cases

import (
	"slices"
	"sync"
	"testing"
)

// atATime is how many labs there are at once. Most of a row's time is waiting for timeouts.
const atATime = 6

// Each row of the table is a lab of its own.
func TestCases(t *testing.T) {
	built = build(t)
	rows := slices.Concat(joins, others, forwarding, connections, failures, carried, reports, causes)
	free := make(chan bool, atATime)
	var wait sync.WaitGroup
	for i := range rows {
		row := &rows[i]
		wait.Go(func() {
			free <- true
			defer func() { <-free }()
			t.Run(row.name, row.run)
		})
	}
	wait.Wait()
}
