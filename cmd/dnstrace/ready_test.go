package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/tracer/api"
	"github.com/dnstrace/dnstrace/tracer/history"
)

// The probe tells a tracer that works from one that hangs, and from none.
func TestCheckReady(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	if err := checkReady(t.Context(), path); err == nil || !strings.Contains(err.Error(), "is `dnstrace run` running") {
		t.Errorf("none: %v", err)
	}
	l, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var sick error
	go func() {
		done <- api.Serve(ctx, l, api.NewHandler(api.Config{History: history.New(history.Config{Keep: time.Minute, MaxBytes: 1}), Health: func() error { return sick }}))
	}()
	if err := checkReady(t.Context(), path); err != nil {
		t.Errorf("works: %v", err)
	}
	sick = errors.New("no packets were read for 20s")
	if err := checkReady(t.Context(), path); err == nil || !strings.Contains(err.Error(), "for 20s") {
		t.Errorf("hangs: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestHealth(t *testing.T) {
	now := time.Unix(1000, 0)
	for age, ok := range map[time.Duration]bool{0: true, staleAfter: true, staleAfter + time.Second: false} {
		if err := health(now.Add(-age), now); (err == nil) != ok {
			t.Errorf("%s: %v", age, err)
		}
	}
}
