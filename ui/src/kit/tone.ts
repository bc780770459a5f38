/** What a state means to the eye. Each tone has its colour and its shape: colour alone says nothing to everybody. */
export type Tone = 'running' | 'starting' | 'failed' | 'stopped' | 'paused' | 'done'
