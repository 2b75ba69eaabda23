package supervise

// Warm returns how many processes of the pool are ready to be taken.
func (l *Launcher) Warm() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.warm)
}
