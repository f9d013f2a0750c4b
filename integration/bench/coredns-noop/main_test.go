package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The plugin that does nothing makes as much room as dnstrace.
func TestStackRoom(t *testing.T) {
	source, err := os.ReadFile("../../../plugin/dnstrace.go")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("const stackRoom = %d\n", stackRoom); !strings.Contains(string(source), want) {
		t.Errorf("plugin/dnstrace.go has no %q", want)
	}
}
