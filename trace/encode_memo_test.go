package trace

import (
	"fmt"
	"sync"
	"testing"
)

// The texts that are kept are those of the values that they are used for, however
// many others share their place in the memo.
func TestMemoTellsKeysApart(t *testing.T) {
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range 20_000 {
				e := Endpoint{Pod: fmt.Sprint("pod-", i%11), Process: fmt.Sprint("p", i%3), PID: i % 5000, Service: []string{"", "a/b"}[i%2], Cgroup: "/a"}
				if got, want := string(e.appendJSON(nil)), string(encodeEndpoint(nil, e)); got != want {
					t.Errorf("got %s, want %s", got, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkAppendExchange(b *testing.B) {
	ex := sampleRecords()[2]
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line = ex.AppendJSON(line[:0])
	}
}
