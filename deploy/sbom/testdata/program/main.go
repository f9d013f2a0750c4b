// Command program is linked with one module, to be told what it is made of.
package main

import "golang.org/x/mod/semver"

func main() { println(semver.IsValid("v1.0.0")) }
