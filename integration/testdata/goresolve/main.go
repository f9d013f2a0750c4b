// Command goresolve resolves its argument with Go's own resolver.
package main

import (
	"context"
	"net"
	"os"
)

func main() {
	// Whether the name exists is the caller's to know.
	_, _ = (&net.Resolver{PreferGo: true}).LookupHost(context.Background(), os.Args[1])
}
