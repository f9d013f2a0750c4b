package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/tracer/history"
)

// impatient starts an API that waits for readers for a moment only.
func impatient(t *testing.T) (h *history.History, path string) {
	t.Helper()
	h = history.New(history.Config{Keep: time.Hour, MaxBytes: 1 << 24})
	path = filepath.Join(t.TempDir(), "api.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, NewHandler(Config{History: h, Patience: 200 * time.Millisecond})) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return h, path
}

// until waits for what is sure to come.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so: %s", what)
		}
	}
}

// Readers that follow and take nothing are disconnected, and cost no more than their queue
// until then: records of 100 KB would fill the memory.
func TestReadersThatTakeNothing(t *testing.T) {
	h, path := impatient(t)
	for range maxReaders {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "GET /v1/traces?follow=true HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	until(t, "all follow", func() bool { return h.Stats().Subscribers == maxReaders })
	large := []byte(`{"x":"` + strings.Repeat("x", 100<<10) + `"}`)
	for range 1000 {
		h.Add(start, history.Lookup{Line: large})
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > maxReaders*8<<20 {
		t.Errorf("%d MB for %d readers", m.HeapAlloc>>20, maxReaders)
	}
	until(t, "none follows", func() bool { h.Add(start, history.Lookup{Line: large}); return h.Stats().Subscribers == 0 })
}

// A reader that was disconnected gets the reason.
func TestSlowReaderGetsTheReason(t *testing.T) {
	h, path := impatient(t)
	large := []byte(`{"x":"` + strings.Repeat("x", 100<<10) + `"}`)
	h.Add(start, history.Lookup{Line: []byte(`{}`)})
	first := true
	err := NewClient(path).Traces(t.Context(), Query{Follow: true, Since: 24 * 365 * 100 * time.Hour}, anyReach, func([]byte) error {
		if first {
			first = false
			until(t, "it is disconnected", func() bool { h.Add(start, history.Lookup{Line: large}); return h.Stats().Subscribers == 0 })
		}
		return nil
	}, func(uint64) {})
	if !errors.Is(err, errDisconnected) || !strings.Contains(err.Error(), path+": the tracer cut this reader off") {
		t.Error(err)
	}
}

// More readers than there may be hear that it is busy, and the other requests are
// answered beside them.
func TestTooManyReaders(t *testing.T) {
	_, c, _ := serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reading := make(chan struct{}, maxReaders)
	ended := make(chan error, maxReaders)
	for range maxReaders {
		go func() {
			ended <- c.Traces(ctx, Query{Follow: true, Since: time.Second}, anyReach, func([]byte) error {
				reading <- struct{}{}
				return nil
			}, func(uint64) {})
		}()
	}
	for range maxReaders {
		<-reading
	}
	err := c.Traces(t.Context(), Query{}, anyReach, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "16 readers are at it already: end one of them") {
		t.Error(err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	cancel()
	for range maxReaders {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	until(t, "there is room again", func() bool {
		return c.Traces(t.Context(), Query{}, anyReach, func([]byte) error { return nil }, nil) == nil
	})
}

// A reader that is slow but reads is not disconnected.
func TestSlowReader(t *testing.T) {
	h, path := impatient(t)
	large := []byte(`{"x":"` + strings.Repeat("x", 100<<10) + `"}`)
	for range 20 {
		h.Add(time.Now(), history.Lookup{Line: large})
	}
	n := 0
	if err := NewClient(path).Traces(t.Context(), Query{}, anyReach, func([]byte) error {
		time.Sleep(30 * time.Millisecond)
		n++
		return nil
	}, nil); err != nil || n != 20 {
		t.Errorf("%d, %v", n, err)
	}
}
