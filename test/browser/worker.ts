import { answerCalls } from '../support/browser-calls.ts'
import { methods } from './methods.ts'

answerCalls(methods)
